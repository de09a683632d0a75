"""The formats of a mixed file, chosen by what each tensor does to the model's output.

passes.py plans what is measured, losses.py and sensitivity.py measure it (torch), choose.py solves
the choice, run.py ties them together, limits.py converts within a limit.
"""
