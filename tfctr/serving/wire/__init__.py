"""What goes over the wire, without TensorFlow: messages, status codes, rows as columns, TFRecord and PEM files."""
