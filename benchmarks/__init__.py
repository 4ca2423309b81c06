"""The benchmark suite: one file a subject, public API only. README.md says how to write and run one."""
