"""What is optimised: supervised training and USR 2.0, each a module that turns a step's clips into losses."""
