// Reads the tracker's `keypoints` topic in C++: copy it into your node.
#pragma once

#include <cstdint>
#include <vector>

#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>

struct Keypoint {
  float x, y, score;        // pixels, pixel centres at integers
  std::int32_t set, age;    // which detector; in how many earlier frames it was seen
  std::uint32_t track_id;   // the same point keeps its id from frame to frame
  const float * descriptor; // points into the message (descriptor_encoding: float32)
};

inline std::vector<Keypoint> read_keypoints(const sensor_msgs::msg::PointCloud2 & cloud)
{
  using sensor_msgs::PointCloud2ConstIterator;
  PointCloud2ConstIterator<float> x(cloud, "x"), y(cloud, "y"), score(cloud, "score");
  PointCloud2ConstIterator<float> descriptor(cloud, "descriptor");
  PointCloud2ConstIterator<std::int32_t> set(cloud, "set"), age(cloud, "age");
  PointCloud2ConstIterator<std::uint32_t> id(cloud, "track_id");
  std::vector<Keypoint> keypoints;
  for (; x != x.end(); ++x, ++y, ++score, ++descriptor, ++set, ++age, ++id) {
    keypoints.push_back({*x, *y, *score, *set, *age, *id, &descriptor[0]});
  }
  return keypoints;
}
