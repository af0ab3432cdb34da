# A public gateway on one small machine of AWS: security group, fixed address, DNS record, machine.
# `terraform apply` again replaces a lost machine; the cluster adopts the new one by itself as long
# as its one-time secret has redemptions left (`portcullis gateway create --redemptions`).

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "name" {
  description = "The gateway's name, as in the EdgeGateway object."
  type        = string
  default     = "gateway"
}

variable "instance_type" {
  description = "The machine. Must suit the program that it is given: t4g is arm64, t3 is x86-64."
  type        = string
  default     = "t4g.nano"
}

variable "spot" {
  description = "Whether a cheaper machine will do that AWS may stop and start again."
  type        = bool
  default     = false
}

variable "subnet_id" {
  description = "The subnet; without one, that of the default network."
  type        = string
  default     = null
}

variable "vpc_id" {
  description = "The network of the subnet; without one, the default network."
  type        = string
  default     = null
}

variable "dns_zone_id" {
  description = "The Route 53 zone for the record; without one, there is no record."
  type        = string
  default     = null
}

variable "dns_name" {
  description = "The record's name: what agents dial and visitors ask for."
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

data "aws_ec2_instance_type" "gateway" {
  instance_type = var.instance_type
}

# Debian's own account.
data "aws_ami" "debian" {
  most_recent = true
  owners      = ["136693071363"]

  filter {
    name   = "name"
    values = ["debian-12-*"]
  }

  filter {
    name   = "architecture"
    values = [data.aws_ec2_instance_type.gateway.supported_architectures[0]]
  }
}

# No port for logging in: the gateway needs none.
resource "aws_security_group" "gateway" {
  name        = "portcullis-${var.name}"
  description = "Portcullis gateway ${var.name}"
  vpc_id      = var.vpc_id

  dynamic "ingress" {
    for_each = concat(local.tunnel, var.published)
    content {
      protocol         = ingress.value.protocol
      from_port        = ingress.value.from
      to_port          = ingress.value.to
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  egress {
    protocol         = "-1"
    from_port        = 0
    to_port          = 0
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}

resource "aws_instance" "gateway" {
  ami                         = data.aws_ami.debian.id
  instance_type               = var.instance_type
  subnet_id                   = var.subnet_id
  vpc_security_group_ids      = [aws_security_group.gateway.id]
  user_data                   = local.user_data
  user_data_replace_on_change = true

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  root_block_device {
    encrypted   = true
    volume_size = 8
    volume_type = "gp3"
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? ["spot"] : []
    content {
      market_type = "spot"
      spot_options {
        spot_instance_type             = "persistent"
        instance_interruption_behavior = "stop"
      }
    }
  }

  tags = {
    Name = "portcullis-${var.name}"
  }

  lifecycle {
    ignore_changes = [ami]
  }
}

# Stays when the machine is replaced.
resource "aws_eip" "gateway" {
  domain = "vpc"

  tags = {
    Name = "portcullis-${var.name}"
  }
}

resource "aws_eip_association" "gateway" {
  instance_id   = aws_instance.gateway.id
  allocation_id = aws_eip.gateway.id
}

resource "aws_route53_record" "gateway" {
  count   = var.dns_zone_id == null ? 0 : 1
  zone_id = var.dns_zone_id
  name    = var.dns_name
  type    = "A"
  ttl     = 60
  records = [aws_eip.gateway.public_ip]
}

output "address" {
  description = "The address that agents dial and visitors connect to."
  value       = aws_eip.gateway.public_ip
}
