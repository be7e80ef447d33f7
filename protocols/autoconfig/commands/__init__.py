"""One file a program that asks. Each function takes what was asked and gives an answer, and awaits nothing but the port."""
