"""GGUF, llama.cpp's container of models: read as a checkpoint, and written.

reader.py knows the container, types.py and dequantize.py its tensors; config.py, arch.py,
tensors.py and tokenizer.py know what llama.cpp calls things; checkpoint.py makes of all these what
the pipeline reads. Nothing here needs llama.cpp or its packages.
"""
