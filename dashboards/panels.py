"""The few kinds of panel that our dashboards are made of, over Grafana's own typed builders.

Every panel states what a person on call should read from it (`description`) and its unit (Grafana's unit ids).
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: The data source that the reader chose at the top of the dashboard.
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

PanelBuilder = Builder[Panel]


def query(promql: str, legend: str, *, exemplars: bool = False) -> prometheus.Dataquery:
    """One query over time. Its series are named by `legend`, a Grafana template such as "{{step}}"."""
    return prometheus.Dataquery().datasource(DATASOURCE).expr(promql).legend_format(legend).range().exemplar(exemplars)


def number(title: str, description: str, promql: str, *, unit: str = "short", bad: bool = False) -> PanelBuilder:
    """One number, now; `bad` paints everything above zero red."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(_lettered(prometheus.Dataquery().datasource(DATASOURCE).expr(promql).instant(), 0))
        .unit(unit)
        .decimals(0)
        .thresholds(_steps(bad=bad))
        .color_mode(common_models.BigValueColorMode.BACKGROUND if bad else common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
        .span(4)
    )


def lines(
    title: str,
    description: str,
    *queries: prometheus.Dataquery,
    unit: str = "short",
    log: bool = False,
    span: int = 12,
    dashed: str | None = None,
) -> PanelBuilder:
    """Lines over time; `log` for values that span decades, `dashed` a pattern of the names of limit lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .targets([_lettered(each, index) for index, each in enumerate(queries)])
        .unit(unit)
        .line_width(1)
        .fill_opacity(5)
        .show_points(common_models.VisibilityMode.AUTO)
        .scale_distribution(_log_scale() if log else _linear_scale())
        .legend(common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .height(8)
        .span(span)
    )
    if dashed is not None:
        dash = {"fill": "dash", "dash": [8, 6]}
        red = {"mode": "fixed", "fixedColor": "red"}
        panel = panel.override_by_regexp(
            f"/{dashed}/",
            [DynamicConfigValue("custom.lineStyle", dash), DynamicConfigValue("color", red)],
        )
    return panel


def states(
    title: str, description: str, promql: str, legend: str, *, names: dict[int, tuple[str, str]]
) -> PanelBuilder:
    """A band per series, coloured by its value: `names` gives text and colour of each."""
    results = {
        str(value): ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(names.items())
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(_lettered(query(promql, legend), 0))
        .unit("none")
        .mappings([ValueMap(options=results)])
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(_steps(bad=True))
        .show_value(common_models.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.9)
        .line_width(0)
        .fill_opacity(70)
        .legend(common.VizLegendOptions().show_legend(False).placement(common_models.LegendPlacement.BOTTOM))
        .height(10)
        .span(24)
    )


def newest(title: str, description: str, columns: dict[str, str], *, by: tuple[str, ...]) -> PanelBuilder:
    """A table of the newest values: one row for each combination of the labels `by`, one column per query."""
    letters = {f"Value #{_letter(index)}": name for index, name in enumerate(columns)}
    targets = [
        _lettered(
            prometheus.Dataquery().datasource(DATASOURCE).expr(promql).instant().format(PromQueryFormat.TABLE), index
        )
        for index, promql in enumerate(columns.values())
    ]
    order = {name: index for index, name in enumerate((*by, *letters))}
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .targets([*targets])
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={"excludeByName": {"Time": True}, "renameByName": letters, "indexByName": order},
            )
        )
        .align(common_models.FieldTextAlignment.AUTO)
        .inspect(False)
        .unit("none")
        .decimals(4)
        .height(8)
        .span(24)
    )


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _lettered(target: prometheus.Dataquery, index: int) -> prometheus.Dataquery:
    return target.ref_id(_letter(index))


def _steps(*, bad: bool) -> ThresholdsConfig:
    good = Threshold(color="green", value=None)
    steps = [good, Threshold(color="red", value=1)] if bad else [good]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _log_scale() -> common.ScaleDistributionConfig:
    return common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)


def _linear_scale() -> common.ScaleDistributionConfig:
    return common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LINEAR)
