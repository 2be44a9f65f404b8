"""Print the options that make RTAB-Map use the plug-ins: ``python3 -m mdnet_ros.integrations…``."""

from mdnet_ros.integrations.rtabmap import rtabmap_parameters

if __name__ == '__main__':
    print(' '.join(f'--{name} {value}' for name, value in rtabmap_parameters()))
