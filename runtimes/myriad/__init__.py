"""Myriad X through OpenVINO 2022.3.2, in a process of its own."""
