"""The last stage: where to look further."""

from __future__ import annotations

from govern.cli.demo.stack import Stack
from govern.cli.demo.stages.proof import mint
from govern.cli.demo.story import Story


async def leave_running(story: Story, stack: Stack, request_id: str) -> None:
    """Say where everything can be reached."""
    story.stage("Look around", "Everything is still running. Send requests to the proxy, and watch them arrive.")
    at = stack.at
    token = await mint(stack)
    story.facts(
        [
            ("proxy", f"{at.proxy}/v2/models/employment"),
            ("model", f"{at.model}/docs"),
            ("explanations", f"{at.explainer}/docs"),
            ("audit log", f"{at.audit}/docs"),
            ("metrics", f"shipper {at.shipper_metrics}/metrics"),
            ("", f"worker {at.worker_metrics}/metrics"),
            ("", f"explainer {at.explainer_metrics}/metrics"),
            ("", f"audit writer {at.writer_metrics}/metrics"),
            ("", f"audit API {at.audit_metrics}/metrics"),
            ("logs", str(stack.work.logs)),
        ]
    )
    story.say("A token for the audit log, valid for 8 hours, and a first question:")
    story.console.print(f"\nTOKEN={token}", soft_wrap=True, markup=False, style="dim")
    story.console.print(
        f'curl -H "Authorization: Bearer $TOKEN" {at.audit}/v1/audit/cases/{request_id}\n', soft_wrap=True, style="dim"
    )


def sum_up(story: Story, stack: Stack) -> None:
    """Say whether everything held, and what had to be started again."""
    story.console.print()
    for name, times in stack.restarts.items():
        if times:
            story.console.print(f"[yellow]{name} died and was started again, {times} times: see its log.[/]")
    if story.failed:
        story.console.print(f"[bold red]{len(story.failed)} of {story.checks} checks did not hold:[/]")
        for one in story.failed:
            story.console.print(f"  [red]✗[/] {one}", highlight=False)
    else:
        story.console.print(f"[bold green]All {story.checks} checks held[/], {story.elapsed_s:.0f} s after the start.")
