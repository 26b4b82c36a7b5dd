"""Reading the /metrics of the demo's processes, as Prometheus would."""

from __future__ import annotations

from collections import Counter

import httpx
from prometheus_client.parser import text_string_to_metric_families


async def scrape(client: httpx.AsyncClient, url: str) -> Counter[str]:
    """Sample name -> its value, summed over all label sets; empty while the process does not answer."""
    try:
        response = await client.get(url)
        response.raise_for_status()
    except httpx.HTTPError:
        return Counter()
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            sums[sample.name] += sample.value  # type: ignore[assignment] # Counter holds any number
    return sums
