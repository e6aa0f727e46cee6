"""Detection."""


from resjax.detection.config import Detection, Detector, Sampling, Scenery
from resjax.experiment import Optimizer

BCCD = Detection(
    name="bccd",
    detector=Detector(backbone="small", anchor_sizes=(20.0, 48.0, 96.0), anchor_ratios=(1.0,), rpn_channels=128,
                      frozen_batch_norm=False, ghost_batch_size=2),
    sampling=Sampling(anchors=128, smallest=4.0, train_candidates=600, train_proposals=200, test_candidates=600,
                      test_proposals=100, rois=64, class_suppression=0.4),
    data=Scenery(source="voc:PATH", train=("trainval",), test=("test",), shorter_side=240, longer_side=320),
    optimizer=Optimizer(peak=0.01, drop_steps=(4_000,), weight_decay=1e-4, warmup_rate=0.002, warmup_steps=200),
    steps=5_000, batch_size=2, log_steps=50, evaluate_steps=500, checkpoint_steps=250)
