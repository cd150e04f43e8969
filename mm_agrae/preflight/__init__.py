"""What can be wrong with data sets before anything is trained or measured on them."""
