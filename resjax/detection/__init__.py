"""Faster R-CNN with residual networks (section 4.3 and appendix A of the paper): Tables 7 and 8."""
