"""Detectors for VOC and COCO (Tables 7 to 11), for photographs of blood cells, and for scenes of digits.

    python experiments/detection.py scenes
    python experiments/detection.py bccd --data.source voc:PATH
    python experiments/detection.py resnet101_0712 --data.source voc:PATH --initialize-from runs/resnet101/seed0

`scenes` needs no download, because its images are composed of scikit-learn's digits. `bccd` trains from scratch on
BCCD, a public data set of 364 photographs with red cells, white cells and platelets (github.com/Shenggan/BCCD_Dataset,
MIT). The other experiments train the paper's detectors, which start from pretrained weights. `--initialize-from` names
the run directory or the file that holds these weights. A file of VGG-16 weights must use torchvision's tensor names.
"""

from dataclasses import replace

from resjax import run
from resjax.detection import Detection, Detector, Inference, Sampling, Scenery
from resjax.experiment import Optimizer

TORCHVISION = (58.395, 57.12, 57.375)  # 255 times torchvision's standard deviations: 0.229, 0.224, 0.225

# Training starts from scratch, so batch norm is trained. Sizes and counts suit small images.
SCENES = Detection(
    name="scenes",
    detector=Detector(backbone="small", anchor_sizes=(24.0, 48.0), anchor_ratios=(1.0, 2.0), rpn_channels=64,
                      frozen_batch_norm=False, ghost_batch_size=4),
    sampling=Sampling(anchors=64, smallest=6.0, train_candidates=300, train_proposals=100, test_candidates=300,
                      test_proposals=50, rois=24, detections=20),
    data=Scenery(source="scenes", shorter_side=160, longer_side=160, flip=False),  # a mirrored 2 is not a digit
    optimizer=Optimizer(learning_rate=0.02, decay_steps=(480,), weight_decay=1e-4, warmup_rate=0.005, warmup_steps=50),
    steps=600, batch_size=4, log_steps=20, evaluate_steps=200, checkpoint_steps=100)

# Half the photographs' size. Cells touch, and 5 % of the red cells in the training set overlap another by over 0.3.
BCCD = Detection(
    name="bccd",
    detector=Detector(backbone="small", anchor_sizes=(20.0, 48.0, 96.0), anchor_ratios=(1.0,), rpn_channels=128,
                      frozen_batch_norm=False, ghost_batch_size=2),
    sampling=Sampling(anchors=128, smallest=4.0, train_candidates=600, train_proposals=200, test_candidates=600,
                      test_proposals=100, rois=64, class_suppression=0.4),
    data=Scenery(source="voc:PATH", train=("trainval",), test=("test",), shorter_side=240, longer_side=320),
    optimizer=Optimizer(learning_rate=0.01, decay_steps=(1_750,), weight_decay=1e-4, warmup_rate=0.002,
                        warmup_steps=200),
    steps=2_000, batch_size=2, log_steps=50, evaluate_steps=500, checkpoint_steps=250)


def voc(name: str, *, vgg: bool = False) -> Detection:
    """Train on VOC 07+12 and test on VOC 2007, one image per step: 80k steps at 0.001 and 30k at 0.0001.

    The paper adopts the settings of Faster R-CNN, which trains for 60k and 20k steps on the 5k images of VOC 2007. For
    the 16k images of both years, public codebases use the numbers of steps above. The first two stages of VGG-16 are
    frozen (Ren et al. 2015).
    """
    detector = Detector(backbone="vgg16" if vgg else "resnet101", frozen_stages=2 if vgg else 0)
    return Detection(name=name, detector=detector, data=Scenery(std=TORCHVISION if vgg else ()),
                     initialize_from="vgg16.pth" if vgg else "runs/resnet101/seed0")


def coco(name: str, *, vgg: bool = False, context: bool = False) -> Detection:
    """Train as in appendix A: 240k steps at 0.001 and 80k at 0.0001, eight images per step.

    Anchors of 64 pixels are added for COCO's small objects, as in Ren et al. 2015 (arXiv 1506.01497v3, section 4.2). Of
    the improvements in appendix B, only global context changes the network. Table 9 adds box refinement before it.
    """
    base = voc(name, vgg=vgg)
    detector = replace(base.detector, anchor_sizes=(64.0, 128.0, 256.0, 512.0), global_context=context)
    data = replace(base.data, source="coco:PATH", train=("train2014",), test=("val2014",))
    return replace(base, detector=detector, data=data,
                   inference=Inference(box_refinement=context), steps=320_000, batch_size=8, evaluate_steps=320_000,
                   optimizer=replace(base.optimizer, decay_steps=(240_000,)))


def fine_tuned(name: str) -> Detection:
    """Fine-tune the COCO model with all improvements on VOC 07+12 ("baseline+++" of Table 10).

    The paper does not state the number of steps. We use a third of the steps that training from ImageNet weights takes,
    at the same learning rates. The paper trains the COCO model on trainval; we train it on train, as in Table 9.
    """
    base, before = voc(name), coco("", context=True)
    return replace(base, detector=before.detector, inference=before.inference, steps=36_000,
                   initialize_from="runs/resnet101_coco_context/seed0",
                   optimizer=replace(base.optimizer, decay_steps=(27_000,)))


EXPERIMENTS = {e.name: e for e in [
    SCENES, BCCD, voc("vgg16_0712", vgg=True), voc("resnet101_0712"), coco("vgg16_coco", vgg=True),
    coco("resnet101_coco"), coco("resnet101_coco_context", context=True),
    fine_tuned("resnet101_coco_0712")]}

if __name__ == "__main__":
    run(EXPERIMENTS)
