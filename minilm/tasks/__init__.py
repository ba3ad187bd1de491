"""What is learned: the batches, the loss and the metrics of a training job, one file per job."""
