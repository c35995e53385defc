"""What a person or a program sees of vidcvae, frozen as text: help, JSON, files, error messages and exit codes.

help.txt    the help of every command
json.txt    the keys of every JSON document and of every file of a run, with their types; no values
errors.txt  wrong inputs, with the exit code and the words they are answered with
made/       a run and a packed dataset of an earlier version, which every later one must read

After a change that is meant, ``python -m tests.frozen`` writes the texts anew, and the diff tells what changed.
"""
