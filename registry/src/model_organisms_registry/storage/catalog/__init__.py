"""The registry's records as rows: functions that take a transaction and plain values. No rules, no clock."""
