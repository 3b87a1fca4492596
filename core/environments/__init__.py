"""Tasks, rewards, sandbox, judges and data sets; the machine imports none of them."""
