"""The experiments that come with resjax, with one file per data set or recipe.

They are installed as `resjax.experiments`.
"""
