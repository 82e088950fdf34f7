# Types of the optional CUDA module; pointers are device addresses, streams are cudaStream_t handles.
toolkit: str

def device_count() -> int: ...
