"""VOC2007 image classification with linear SVMs on frozen features: OpenSelfSup's benchmark, after Goyal et al. (arXiv 1905.01235).

Features of the last map (res5, 2x2 averages, 8,192 numbers of a ResNet-50), of length 1, of the 5,011 images of trainval; one
SVM a class, its cost chosen by 3-fold cross-validation; mean AP of the 20 classes on the 4,952 of test. The network does
not train; 1,160 SVMs take minutes on tens of cores and hours on two, which no estimate of the time counts.

Costs are OpenSelfSup's (1, 10, 100 and 0.5^4 ... 0.5^19); VISSL's configuration has 0.01 to 1000 and is otherwise the same.
"""

from downstream.task import LinearSVM

TASK = LinearSVM(
    name="voc07_svm",
    cite="open-mmlab/OpenSelfSup benchmarks/svm_tools and docs/MODEL_ZOO.md; facebookresearch/vissl vissl/utils/svm_utils",
    costs=(1.0, 10.0, 100.0, *(0.5**n for n in range(4, 20))),
    expected={
        "supervised": {"mAP": 87.17},
        "moco_v1 (200 epochs)": {"mAP": 79.18},
        "moco_v2 (200 epochs)": {"mAP": 84.26},
    },
    unverified=(
        "expected values are OpenSelfSup's own trainings (torchvision's for supervised), not the MoCo authors' weights",
        "the published numbers are of Caffe2's or torch's own bilinear resizing of their time; here it is Pillow's",
        "labels are read from the objects of VOC's XML files; its lists ImageSets/Main/<class>_<split>.txt were not compared",
        "the random draws of the solver have no published seed; here it is the trial's",
    ),
)
