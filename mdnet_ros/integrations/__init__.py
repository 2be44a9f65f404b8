"""Plug-ins and file formats of other systems, without ROS."""
