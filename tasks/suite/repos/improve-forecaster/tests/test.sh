#!/bin/bash
exec python /tests/grade.py
