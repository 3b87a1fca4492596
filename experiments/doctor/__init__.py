"""`grpolab doctor`: what a machine has, and checks of which each proves one thing, in processes of their own."""
