"""The TensorRT stand-in of the Triton image: trtexec, and Triton's tensorrt backend over onnxruntime on the CPU.

In the image this folder is the Python package `tensorrt_stand_in`.
"""
