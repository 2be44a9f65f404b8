"""Other systems' interfaces, without ROS: plug-ins and file formats."""
