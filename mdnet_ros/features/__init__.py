"""ROS-free core: image in; features, matches and tracks out."""
