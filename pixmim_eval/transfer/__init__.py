"""What a pretrained encoder is trained to do next: probes, fine-tuning, dense heads. Between training and suites."""
