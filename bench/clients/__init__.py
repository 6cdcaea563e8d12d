"""`make clients`: the programs people really use, installed and driven end to end, with the simulator behind evenflow. See __main__."""
