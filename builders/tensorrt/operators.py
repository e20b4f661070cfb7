"""Which ONNX operators the ONNX parser of TensorRT reads, and since when.

Source: onnx/onnx-tensorrt, docs/operators.md of TensorRT 10.15 (2026-02) for what is read at all,
and docs/Changelog.md for when an operator was added after 10.0. The parser names what it does not
read on the device too; this table says it before anything is released.
"""

from __future__ import annotations

OPSETS = range(9, 25)
"""That TensorRT 10.15 reads; 11 reads one more."""

SINCE = {
    "DeformConv": "10.1",
    "BlackmanWindow": "10.4", "HammingWindow": "10.4", "HannWindow": "10.4",
    "STFT": "10.5",
    "Attention": "10.14",
    "RMSNormalization": "10.15", "RotaryEmbedding": "10.15", "TensorScatter": "10.15",
}  # fmt: skip
"""Operators that were added after 10.0, with the first version that reads them."""

_READ = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos
Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HammingWindow HannWindow
HardSigmoid HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool
MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not
OneHot Or Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RMSNormalization RNN RoiAlign RotaryEmbedding Round STFT ScaledTanh Scan Scatter
ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu Tile TopK
Transpose Trilu Unsqueeze Upsample Where Xor
"""
READ = frozenset(_READ.split())
"""Operators of the standard domain that the parser reads, within the limits that the table of the
source gives for some."""

REMEDIES = {
    "BitShift": "do it in the pre-processing, or with Mul and Floor",
    "ConvInteger": "quantise with QuantizeLinear and DequantizeLinear pairs: optimize.precision",
    "DynamicQuantizeLinear": "quantise statically: optimize.quantization.scheme: static",
    "MatMulInteger": "quantise with QuantizeLinear and DequantizeLinear pairs: optimize.precision",
    "QLinearConv": "quantise with QuantizeLinear and DequantizeLinear pairs: optimize.precision",
    "QLinearMatMul": "quantise with QuantizeLinear and DequantizeLinear pairs: optimize.precision",
    "Unique": "do it in the post-processing, outside the model",
    "Compress": "use Where or a multiplication by the mask, whose shapes are fixed",
}
