"""Semantic segmentation on a pretrained encoder: UperNet, trained whole, and two heads on frozen patch tokens."""
