"""Write an encoder's weights as an ONNX graph; runs inside the serving image.

    python3 export_onnx.py REQUEST.json WEIGHTS_DIRECTORY OUTPUT_DIRECTORY

REQUEST.json: architecture (clip_vision or bert), embedding_size, image_size, text_tokens, precision. For int8 the
file documents.jsonl beside it holds what the quantization is calibrated with.

The graph is written node by node from safetensors: torch and transformers, which would trace it, weigh three
gigabytes and would be in the image for this one step. tests/unit/encoders holds embeddings that transformers
computed, to compare.

The precision stands in the graph: TensorRT 11 takes every type from there and has no option for it any more, and 10 reads the
same graph. For fp16 matrices, biases and what flows between them are float16; what adds many numbers up (LayerNormalization,
softmax, the mean, the vector's length) is computed in float32, as are inputs and output. For int8 the rest is float32.
Architectures: transformers' CLIPVisionModelWithProjection, and BertModel with mean pooling, as sentence-transformers
uses it; both end in a vector of length 1.
"""

import base64
import json
import os
import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

OPSET = 17  # LayerNormalization is a node of its own from 17 on


class Graph:
    """A graph that grows node by node; every method returns the name of what it adds."""

    def __init__(self, weights: str, half: bool = False) -> None:
        self.half = half  # whether it computes in float16
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.tensors: dict[str, str] = {}  # name -> file
        for name in sorted(os.listdir(weights)):
            if name.endswith(".safetensors"):
                path = os.path.join(weights, name)
                with safe_open(path, "np") as file:
                    self.tensors |= {key: path for key in file.keys()}  # noqa: SIM118 (no mapping)

    def weight(self, name: str) -> Any:
        """One tensor of the checkpoint, in float32. Raises KeyError where it is not there."""
        with safe_open(self.tensors[name], "np") as file:
            return file.get_tensor(name).astype(np.float32)

    def constant(self, value: Any, name: str = "") -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def number(self, value: Any, name: str = "") -> str:
        """A constant of the type that the graph computes in."""
        return self.constant(np.asarray(value).astype(np.float16 if self.half else np.float32), name)

    def narrow(self, x: str) -> str:
        """A float32 tensor in the type that the graph computes in."""
        return self.node("Cast", x, to=TensorProto.FLOAT16) if self.half else x

    def wide(self, x: str) -> str:
        """A tensor in float32: where many numbers are added up."""
        return self.node("Cast", x, to=TensorProto.FLOAT) if self.half else x

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def linear(self, x: str, prefix: str, bias: bool = True) -> str:
        """x W^T + b, with the weights of torch's Linear."""
        product = self.node(
            "MatMul", x, self.number(self.weight(f"{prefix}.weight").T.copy(), f"{prefix}.weight")
        )
        if not bias:
            return product
        return self.node("Add", product, self.number(self.weight(f"{prefix}.bias"), f"{prefix}.bias"))

    def norm(self, x: str, prefix: str, epsilon: float) -> str:
        scale = self.constant(self.weight(f"{prefix}.weight"), f"{prefix}.weight")
        shift = self.constant(self.weight(f"{prefix}.bias"), f"{prefix}.bias")
        normed = self.node("LayerNormalization", self.wide(x), scale, shift, axis=-1, epsilon=epsilon)
        return self.narrow(normed)

    def attention(self, x: str, projections: list[str], heads: int, width: int, mask: str = "") -> str:
        """Multi-head attention of [batch, tokens, width]; what goes into the output projection. `mask`: in float32."""
        query, key, value = projections
        split = self.constant(np.array([0, 0, heads, width // heads], dtype=np.int64))

        def by_head(prefix: str, order: list[int]) -> str:
            return self.node("Transpose", self.node("Reshape", self.linear(x, prefix), split), perm=order)

        scores = self.node("MatMul", by_head(query, [0, 2, 1, 3]), by_head(key, [0, 2, 3, 1]))
        scores = self.wide(self.node("Mul", scores, self.number((width // heads) ** -0.5)))
        if mask:
            scores = self.node("Add", scores, mask)
        shares = self.narrow(self.node("Softmax", scores, axis=-1))
        mixed = self.node("MatMul", shares, by_head(value, [0, 2, 1, 3]))
        joined = self.constant(np.array([0, 0, width], dtype=np.int64))
        return self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), joined)

    def activation(self, x: str, kind: str) -> str:
        """CLIP's quick_gelu, or BERT's gelu."""
        if kind == "quick_gelu":
            inner = self.node("Mul", x, self.number(1.702))
            return self.node("Mul", x, self.node("Sigmoid", inner))
        if kind == "gelu":
            inner = self.node("Erf", self.node("Mul", x, self.number(2**-0.5)))
            return self.node(
                "Mul",
                self.node("Mul", x, self.number(0.5)),
                self.node("Add", inner, self.number(1)),
            )
        raise ValueError(f"hidden_act {kind!r}; expected quick_gelu or gelu")

    def unit_length(self, x: str, output: str) -> None:
        """The output: x / |x|. `x`: in float32"""
        length = self.node("ReduceL2", x, axes=[-1], keepdims=1)
        self.nodes.append(helper.make_node("Div", [x, length], [output], name=output))

    def save(self, path: str, inputs: list[Any], output: Any) -> None:
        initializers = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "encoder", inputs, [output], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, path)


def clip_vision(graph: Graph, config: dict[str, Any], request: dict[str, Any], path: str) -> None:
    vision, size = config.get("vision_config", config), request["image_size"]
    if int(vision.get("image_size", 224)) != size:
        raise ValueError(f"image_size {vision.get('image_size')}; the profile says {size}")
    width, patch, heads = (
        int(vision["hidden_size"]),
        int(vision["patch_size"]),
        int(vision["num_attention_heads"]),
    )
    epsilon, act = float(vision.get("layer_norm_eps", 1e-5)), vision.get("hidden_act", "quick_gelu")
    kernel = graph.number(graph.weight("vision_model.embeddings.patch_embedding.weight"), "patch_embedding")
    patches = graph.node("Conv", graph.narrow("pixel_values"), kernel, strides=[patch, patch])
    flat = graph.constant(np.array([0, width, -1], dtype=np.int64))
    patches = graph.node("Transpose", graph.node("Reshape", patches, flat), perm=[0, 2, 1])
    # the class token, once for each picture of the batch
    token = graph.number(
        graph.weight("vision_model.embeddings.class_embedding").reshape(1, 1, width), "class_token"
    )
    batch = graph.node("Shape", "pixel_values", start=0, end=1)
    shape = graph.node("Concat", batch, graph.constant(np.array([1, 1], dtype=np.int64)), axis=0)
    x = graph.node("Concat", graph.node("Expand", token, shape), patches, axis=1)
    x = graph.node(
        "Add",
        x,
        graph.number(graph.weight("vision_model.embeddings.position_embedding.weight"), "positions"),
    )
    x = graph.norm(x, "vision_model.pre_layrnorm", epsilon)
    for number in range(int(vision["num_hidden_layers"])):
        layer = f"vision_model.encoder.layers.{number}"
        normed = graph.norm(x, f"{layer}.layer_norm1", epsilon)
        projections = [f"{layer}.self_attn.{name}_proj" for name in ("q", "k", "v")]
        mixed = graph.attention(normed, projections, heads, width)
        x = graph.node("Add", x, graph.linear(mixed, f"{layer}.self_attn.out_proj"))
        normed = graph.norm(x, f"{layer}.layer_norm2", epsilon)
        hidden = graph.activation(graph.linear(normed, f"{layer}.mlp.fc1"), act)
        x = graph.node("Add", x, graph.linear(hidden, f"{layer}.mlp.fc2"))
    first = graph.node("Gather", x, graph.constant(np.array(0, dtype=np.int64)), axis=1)
    pooled = graph.norm(first, "vision_model.post_layernorm", epsilon)
    projected = graph.wide(graph.linear(pooled, "visual_projection", bias=False))
    graph.unit_length(projected, "image_embedding")
    given = int(graph.weight("visual_projection.weight").shape[0])
    save(
        graph, path, request, given, {"pixel_values": (TensorProto.FLOAT, [3, size, size])}, "image_embedding"
    )


def bert(graph: Graph, config: dict[str, Any], request: dict[str, Any], path: str) -> None:
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    tokens, epsilon = request["text_tokens"], float(config.get("layer_norm_eps", 1e-12))
    if tokens > int(config["max_position_embeddings"]):
        raise ValueError(f"text_tokens {tokens}; the model has {config['max_position_embeddings']} positions")
    words = graph.number(graph.weight("embeddings.word_embeddings.weight"), "word_embeddings")
    # positions, and the first token type: a text is one segment
    fixed = graph.weight("embeddings.position_embeddings.weight")[:tokens]
    fixed = fixed + graph.weight("embeddings.token_type_embeddings.weight")[0]
    x = graph.node("Add", graph.node("Gather", words, "input_ids"), graph.number(fixed, "positions"))
    x = graph.norm(x, "embeddings.LayerNorm", epsilon)
    mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    wide = graph.node("Unsqueeze", mask, graph.constant(np.array([1, 2], dtype=np.int64)))
    absent = graph.node("Sub", graph.constant(np.float32(1)), wide)
    hidden_mask = graph.node("Mul", absent, graph.constant(np.float32(-10000)))  # far enough
    for number in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{number}"
        projections = [f"{layer}.attention.self.{name}" for name in ("query", "key", "value")]
        mixed = graph.attention(x, projections, heads, width, hidden_mask)
        mixed = graph.linear(mixed, f"{layer}.attention.output.dense")
        x = graph.norm(graph.node("Add", x, mixed), f"{layer}.attention.output.LayerNorm", epsilon)
        hidden = graph.activation(
            graph.linear(x, f"{layer}.intermediate.dense"), config.get("hidden_act", "gelu")
        )
        hidden = graph.linear(hidden, f"{layer}.output.dense")
        x = graph.norm(graph.node("Add", x, hidden), f"{layer}.output.LayerNorm", epsilon)
    # the mean over the tokens that are there: [batch, 1, tokens] x [batch, tokens, width]
    row = graph.node("Unsqueeze", mask, graph.constant(np.array([1], dtype=np.int64)))
    sums = graph.node("MatMul", row, graph.wide(x))
    total = graph.node("Squeeze", sums, graph.constant(np.array([1], dtype=np.int64)))
    count = graph.node("ReduceSum", mask, graph.constant(np.array([1], dtype=np.int64)), keepdims=1)
    graph.unit_length(graph.node("Div", total, count), "text_embedding")
    inputs = {name: (TensorProto.INT32, [tokens]) for name in ("input_ids", "attention_mask")}
    save(graph, path, request, width, inputs, "text_embedding")


def save(
    graph: Graph, path: str, request: dict[str, Any], size: int, inputs: dict[str, Any], output: str
) -> None:
    if size != request["embedding_size"]:
        raise ValueError(
            f"embeddings of {size} numbers; the profile says embedding_size {request['embedding_size']}"
        )
    graph.save(
        path,
        [
            helper.make_tensor_value_info(name, kind, ["batch", *dims])
            for name, (kind, dims) in inputs.items()
        ],
        helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", size]),
    )


def quantize(path: str, request: dict[str, Any], weights: str, documents: str) -> None:
    """Replace the graph by one with int8 matrices and Q/DQ nodes: TensorRT 10 takes no other int8."""
    from encoder_inputs import Pictures, Texts  # type: ignore[import-not-found]  # beside this file
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    with open(documents, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    inputs: list[dict[str, Any]]
    if request["architecture"] == "clip_vision":
        pictures = Pictures(weights)
        contents = [base64.b64decode(line["image"]) for line in lines if line.get("image")]
        inputs = [{"pixel_values": pictures.all([content])} for content in contents]
    else:
        texts = Texts(weights, request["text_tokens"])
        pairs = [texts.all([line["text"]]) for line in lines if line.get("text")]
        inputs = [{"input_ids": ids, "attention_mask": mask} for ids, mask in pairs]
    if not inputs:
        raise ValueError("no document to calibrate int8 with")

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> Any:
            return next(self.left, None)

    quantize_static(
        path,
        f"{path}.int8",
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Conv"],
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # TensorRT knows symmetric int8 only
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "MatMulConstBOnly": True},
    )
    os.replace(f"{path}.int8", path)
    print(f"export: int8, calibrated with {len(inputs)} documents", flush=True)


def main() -> int:
    request_file, weights, output = sys.argv[1:4]
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    path = os.path.join(output, "model.onnx")
    try:
        with open(os.path.join(weights, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        graph = Graph(weights, half=request["precision"] == "fp16")
        {"clip_vision": clip_vision, "bert": bert}[request["architecture"]](graph, config, request, path)
        print(f"export: {request['architecture']}, {len(graph.nodes)} nodes", flush=True)
        if request["precision"] == "int8":
            quantize(path, request, weights, os.path.join(os.path.dirname(request_file), "documents.jsonl"))
    except KeyError as error:
        print(f"export: found no {error} in the weights of {request['architecture']}", file=sys.stderr)
        return 65
    except (OSError, ValueError) as error:
        print(f"export: found {error}", file=sys.stderr)
        return 65
    return 0


if __name__ == "__main__":
    sys.exit(main())
