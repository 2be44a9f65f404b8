// Reads the tracker's `correspondences` topic in C++: copy it into your node.
#pragma once

#include <cstdint>
#include <vector>

#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>

struct Correspondence {
  float x, y;                     // where the point is, pixels
  float x_prev, y_prev;           // where it was, pixels
  float similarity;               // cosine of the descriptors
  std::int32_t set;               // which detector
  std::uint32_t track_id;         // the same point keeps its id from frame to frame
  bool inlier;                    // the geometric model agrees
  std::int32_t index, index_prev; // rows in this and in the earlier frame's `keypoints`
  std::int64_t stamp_prev;        // stamp of the earlier frame, nanoseconds
};

inline std::vector<Correspondence> read_correspondences(
  const sensor_msgs::msg::PointCloud2 & cloud)
{
  using Floats = sensor_msgs::PointCloud2ConstIterator<float>;
  using Ints = sensor_msgs::PointCloud2ConstIterator<std::int32_t>;
  using Uints = sensor_msgs::PointCloud2ConstIterator<std::uint32_t>;
  Floats x(cloud, "x"), y(cloud, "y"), x_prev(cloud, "x_prev"), y_prev(cloud, "y_prev");
  Floats similarity(cloud, "similarity");
  Ints set(cloud, "set"), inlier(cloud, "inlier");
  Ints index(cloud, "index"), index_prev(cloud, "index_prev"), seconds(cloud, "stamp_prev_sec");
  Uints id(cloud, "track_id"), nanoseconds(cloud, "stamp_prev_nanosec");
  std::vector<Correspondence> links;
  for (; x != x.end(); ++x, ++y, ++x_prev, ++y_prev, ++similarity, ++set, ++inlier, ++index,
    ++index_prev, ++seconds, ++id, ++nanoseconds)
  {
    links.push_back(
      {*x, *y, *x_prev, *y_prev, *similarity, *set, *id, *inlier != 0, *index, *index_prev,
        *seconds * std::int64_t{1000000000} + *nanoseconds});
  }
  return links;
}
