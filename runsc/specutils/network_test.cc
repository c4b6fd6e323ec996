#include "runsc/specutils/network.h"

#include <gtest/gtest.h>

namespace redoubt::specutils {
namespace {

using netstack::Address;

NetworkConfig Example() {
  return {.links = {{.name = "eth0",
                     .index = 7,
                     .mtu = 1400,
                     .mac = {{2, 0, 0, 0, 0, 255}},
                     .ipv6 = true,
                     .flags = 0x1043,
                     .type = 1,
                     .addresses = {{.prefix = {*Address::Parse("192.0.2.2"), 24}},
                                   {.prefix = {*Address::Parse("2001:db8::2"), 64},
                                    .preferred = 100,
                                    .valid = 200,
                                    .from_router = true}}},
                    {.name = "eth1", .index = 9, .mtu = 65535, .mac = {{2, 0, 0, 0, 1, 0}}}},
          .routes = {{.destination = {Address::Any(netstack::Family::kIpv4), 0},
                      .gateway = *Address::Parse("192.0.2.1"),
                      .interface_index = 7,
                      .metric = 5,
                      .source = *Address::Parse("192.0.2.2"),
                      .mtu = 1300,
                      .type = netstack::RouteType::kUnicast,
                      .protocol = 4},
                     {.destination = {*Address::Parse("2001:db8:1::"), 48}, .type = netstack::RouteType::kUnreachable}},
          .notes = {"a note"}};
}

TEST(Network, WhatIsWrittenIsRead) {
  for (const NetworkConfig& config : {Example(), NetworkConfig{}}) {
    Expected<NetworkConfig> read = DeserializeNetwork(SerializeNetwork(config));
    ASSERT_TRUE(read) << read.error();
    EXPECT_EQ(*read, config);
  }
}

TEST(Network, NonsenseIsRefused) {
  std::string text = SerializeNetwork(Example());
  for (size_t n = 0; n < text.size(); n++) EXPECT_FALSE(DeserializeNetwork(text.substr(0, n))) << n;
  NetworkConfig long_prefix = Example();
  long_prefix.links[0].addresses[0].prefix.length = 33;
  EXPECT_FALSE(DeserializeNetwork(SerializeNetwork(long_prefix)));
}

}  // namespace
}  // namespace redoubt::specutils
