# A public gateway on one small machine of Hetzner Cloud: firewall, fixed addresses of both families,
# DNS records, machine. `terraform apply` again replaces a lost machine; the cluster adopts the new
# one by itself as long as its one-time secret has redemptions left
# (`portcullis gateway create --redemptions`).

terraform {
  required_version = ">= 1.5"
  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = ">= 1.58"
    }
  }
}

variable "name" {
  description = "The gateway's name, as in the EdgeGateway object."
  type        = string
  default     = "gateway"
}

variable "server_type" {
  description = "The machine. Must suit the program that it is given: cax is arm64, cx is x86-64."
  type        = string
  default     = "cax11"
}

variable "location" {
  description = "Where the machine stands."
  type        = string
  default     = "fsn1"
}

variable "dns_zone" {
  description = "The zone for the records; without one, there are no records."
  type        = string
  default     = null
}

variable "dns_name" {
  description = "The records' name within the zone: what agents dial and visitors ask for."
  type        = string
  default     = null
}

variable "tunnel_port" {
  description = "The port that agents dial, TCP and UDP."
  type        = number
  default     = 7443
}

variable "published" {
  description = "The ports that may be published."
  type        = list(object({ protocol = string, from = number, to = number }))
  default = [
    { protocol = "tcp", from = 80, to = 80 },
    { protocol = "tcp", from = 443, to = 443 },
  ]
}

locals {
  user_data = file("${path.module}/user-data.yaml")
  tunnel = [
    { protocol = "tcp", from = var.tunnel_port, to = var.tunnel_port },
    { protocol = "udp", from = var.tunnel_port, to = var.tunnel_port },
  ]
}

# No port for logging in: the gateway needs none.
resource "hcloud_firewall" "gateway" {
  name = "portcullis-${var.name}"

  dynamic "rule" {
    for_each = concat(local.tunnel, var.published)
    content {
      direction  = "in"
      protocol   = rule.value.protocol
      port       = rule.value.from == rule.value.to ? "${rule.value.from}" : "${rule.value.from}-${rule.value.to}"
      source_ips = ["0.0.0.0/0", "::/0"]
    }
  }
}

# These stay when the machine is replaced.
resource "hcloud_primary_ip" "v4" {
  name          = "portcullis-${var.name}-v4"
  type          = "ipv4"
  assignee_type = "server"
  location      = var.location
  auto_delete   = false
}

resource "hcloud_primary_ip" "v6" {
  name          = "portcullis-${var.name}-v6"
  type          = "ipv6"
  assignee_type = "server"
  location      = var.location
  auto_delete   = false
}

resource "hcloud_server" "gateway" {
  name         = "portcullis-${var.name}"
  server_type  = var.server_type
  image        = "debian-12"
  location     = var.location
  firewall_ids = [hcloud_firewall.gateway.id]
  user_data    = local.user_data

  public_net {
    ipv4 = hcloud_primary_ip.v4.id
    ipv6 = hcloud_primary_ip.v6.id
  }
}

resource "hcloud_zone_rrset" "v4" {
  count   = var.dns_zone == null ? 0 : 1
  zone    = var.dns_zone
  name    = var.dns_name
  type    = "A"
  ttl     = 60
  records = [{ value = hcloud_primary_ip.v4.ip_address }]
}

resource "hcloud_zone_rrset" "v6" {
  count   = var.dns_zone == null ? 0 : 1
  zone    = var.dns_zone
  name    = var.dns_name
  type    = "AAAA"
  ttl     = 60
  records = [{ value = hcloud_server.gateway.ipv6_address }]
}

output "address" {
  description = "The address that agents dial and visitors connect to."
  value       = hcloud_primary_ip.v4.ip_address
}

output "address_ipv6" {
  description = "The same for IPv6."
  value       = hcloud_server.gateway.ipv6_address
}
