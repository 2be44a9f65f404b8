#!/usr/bin/env bash
# ROS, the workspace, and a shared-memory segment that holds images.
set -eo pipefail
for setup in "/opt/ros/${ROS_DISTRO}/install/setup.bash" "/opt/ros/${ROS_DISTRO}/setup.bash"; do
  if [ -f "$setup" ]; then source "$setup"; fi
done
source /ws/install/setup.bash
profile=$(python3 -c 'from mdnet_ros.nodes.environment import FASTDDS_PROFILE as p; print(p)')
export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$profile}"
export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$profile}"
exec "$@"
