"""Pipelines chained to pipelines: what one is given of the records of others, joined where it reads several."""
