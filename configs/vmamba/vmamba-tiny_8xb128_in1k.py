# VMamba-T is the published T[s1l8].
_base_ = "./vmamba-tiny-s1l8_8xb128_in1k.py"
