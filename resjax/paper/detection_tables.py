"""Tables 7 to 11 as data: detectors, and their published results."""

from resjax.detection.config import Inference
from resjax.paper.table import Row, Table
from resjax.training.kinds import Measure

VOC = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
       "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
POINTS = Measure("mAP", "eleven_point", 1, True)
BY_CLASS = (POINTS, *(Measure(name, f"eleven_points.{name}", 1, True) for name in VOC))
COCO = (Measure("mAP@.5", "coco_at_half", 1, True), Measure("mAP@[.5, .95]", "coco_average", 1, True))
REFINED = Inference(box_refinement=True)
MULTI_SCALE = Inference(box_refinement=True, scales=(200, 400, 600, 800, 1000))
OF_2012 = ("The 2012 test labels are not public: only VOC's server can measure results on these images, so we have "
           "none.")

TABLE7 = Table(
    "table7", "Table 7: PASCAL VOC, mean average precision", "detection.py",
    f"mAP in percent on the VOC 2007 test images, by the 11-point rule. {OF_2012}", (POINTS,), (
        Row("vgg16_0712", "VGG-16, 07+12, test 2007", (73.2,)),
        Row("resnet101_0712", "ResNet-101, 07+12, test 2007", (76.4,)),
        Row("", "VGG-16, 07++12, test 2012", (70.4,)),
        Row("", "ResNet-101, 07++12, test 2012", (73.8,))))
TABLE8 = Table(
    "table8", "Table 8: COCO, mean average precision", "detection.py",
    "mAP in percent on COCO's validation images, by pycocotools; trained on train 2014", COCO, (
        Row("vgg16_coco", "VGG-16", (41.5, 21.2)), Row("resnet101_coco", "ResNet-101", (48.4, 27.2))))
TABLE9 = Table(
    "table9", "Table 9: COCO, improvements of the detector", "detection.py",
    "mAP in percent on COCO's validation images, by pycocotools; trained on train 2014. Each row adds to the row "
    "above. Box refinement and multi-scale testing use the same network and change only the test", COCO, (
        *TABLE8.rows,
        Row("resnet101_coco", "+ box refinement", (49.9, 29.9), how=REFINED),
        Row("resnet101_coco_context", "+ global context", (51.1, 30.0), how=REFINED),
        Row("resnet101_coco_context", "+ multi-scale testing", (53.8, 32.5), how=MULTI_SCALE)))
TABLE10 = Table(
    "table10", "Table 10: VOC 2007 test, average precision by class", "detection.py",
    "average precision in percent on the VOC 2007 test images, by the 11-point rule", BY_CLASS, (
        Row("vgg16_0712", "VGG-16, 07+12", (
            73.2, 76.5, 79.0, 70.9, 65.5, 52.1, 83.1, 84.7, 86.4, 52.0, 81.9, 65.7, 84.8, 84.6, 77.5, 76.7, 38.8, 73.6,
            73.9, 83.0, 72.6)),
        Row("resnet101_0712", "ResNet-101, 07+12", (
            76.4, 79.8, 80.7, 76.2, 68.3, 55.9, 85.1, 85.3, 89.8, 56.7, 87.8, 69.4, 88.3, 88.9, 80.9, 78.4, 41.7, 78.6,
            79.8, 85.3, 72.0)),
        Row("resnet101_coco_0712", "baseline+++, COCO+07+12", (
            85.6, 90.0, 89.6, 87.8, 80.8, 76.1, 89.9, 89.9, 89.6, 75.5, 90.0, 80.7, 89.6, 90.3, 89.1, 88.7, 65.4, 88.1,
            85.6, 89.0, 86.8), how=MULTI_SCALE)))
TABLE11 = Table(
    "table11", "Table 11: VOC 2012 test, average precision by class", "detection.py",
    f"average precision in percent on the VOC 2012 test images. {OF_2012}", BY_CLASS, (
        Row("", "VGG-16, 07++12", (
            70.4, 84.9, 79.8, 74.3, 53.9, 49.8, 77.5, 75.9, 88.5, 45.6, 77.1, 55.3, 86.9, 81.7, 80.9, 79.6, 40.1, 72.6,
            60.9, 81.2, 61.5)),
        Row("", "ResNet-101, 07++12", (
            73.8, 86.5, 81.6, 77.2, 58.0, 51.0, 78.6, 76.6, 93.2, 48.6, 80.4, 59.0, 92.1, 85.3, 84.8, 80.7, 48.1, 77.3,
            66.5, 84.7, 65.6)),
        Row("", "baseline+++, COCO+07++12", (
            83.8, 92.1, 88.4, 84.8, 75.9, 71.4, 86.3, 87.8, 94.2, 66.8, 89.4, 69.2, 93.9, 91.9, 90.9, 89.6, 67.9, 88.2,
            76.8, 90.3, 80.0))))
DETECTION = (TABLE7, TABLE8, TABLE9, TABLE10, TABLE11)
