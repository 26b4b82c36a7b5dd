"""The stages of the demo, one file each, in the order of `govern.cli.demo.command`."""
