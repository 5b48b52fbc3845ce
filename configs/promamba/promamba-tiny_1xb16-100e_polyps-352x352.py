# ProMamba-Tiny, PraNet's split. The encoder starts from Vim-Tiny's ImageNet weights where `vim` names their file.
_base_ = ["../_base_/prompts/polyps_352.py", "../_base_/prompts/adamw_100e.py"]
vim = None
model = dict(
    type="PromptSegmentor",
    network=dict(
        type="ProMamba",
        arch="tiny",
        encoder=dict(init_cfg=dict(type="Pretrained", checkpoint=vim) if vim else None),
    ),
    loss=dict(type="StructureLoss"),
    scales=(0.75, 1.0, 1.25),
)
