"""What runs on the device: the measuring protocol, its sensors, and the runner that travels to a remote device.

Everything here is held to Python 3.8 (JetPack 5) and imports only the standard library at the top; NumPy and a runtime
are imported where a model is opened. :mod:`rsedge.devices.measure.protocol` uses the same protocol and sensors on this machine.
"""
