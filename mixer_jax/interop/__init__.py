"""Interoperability with PyTorch: counterparts of the models, weight conversion, augmentation and ONNX export."""
