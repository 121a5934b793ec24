"""Readers of reports: bounces, complaints and automatic replies, as servers and vendors write them.

Each module is a plugin with the stage `read_report`. They are asked in the set's order: those of formats with
a structure first, those of texts for people last.
"""
