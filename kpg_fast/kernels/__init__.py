"""Compiled operations, a folder each: __init__ (formula, shapes, gradient), ref (definition), cpu, gpu."""
