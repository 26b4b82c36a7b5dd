"""Explanations of single predictions: attributions, anchors, reasons; and the service that answers for them."""
