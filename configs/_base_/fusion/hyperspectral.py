# Hyperspectral images and guides in PanCollection's layout; tested with the truth, in the scores of the paper.
_base_ = ["./pancollection.py"]
_scores = dict(type="SharpeningMetric", cut_border=False, scores=["PSNR", "CC", "SSIM", "SAM", "ERGAS"])
test_dataloader = dict(dataset=dict(split="reduced"))
val_evaluator = _scores
test_evaluator = _scores
