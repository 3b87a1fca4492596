"""Our maths beside the code of the public libraries: every part and variant, values and gradients.

`make conformance` installs the libraries in an environment of their own and runs it; nothing else imports this package.
"""
